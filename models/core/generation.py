"""`generate` with transformers' arguments, run by the continuous-batching loop."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ...scheduler.model_protocol import Task
from ...scheduler.request import FinishReason, GenerationOptions, Request, RequestOutput
from ..checkpoints.files import Checkpoint
from .generation_config import GenerationConfig
from .model import PretrainedModel
from .outputs import GenerateOutput
from .padding import one_input, pack_features

if TYPE_CHECKING:
    from ...scheduler.config import RunnerConfig
    from ...scheduler.loop import GenerationLoop
    from ...scheduler.runner import FrontEnd


class GenerationMixin(PretrainedModel):
    """Mixin that offers `generate` for a model with `encode`, `cross_key_values` and `decode`."""

    task: ClassVar[Task] = Task.GENERATION
    generation_config: GenerationConfig
    generation_config_class: ClassVar[type[GenerationConfig]] = GenerationConfig
    side_files: ClassVar[tuple[str, ...]] = ("generation_config.json",)
    # Prompts are given without the start token, which then goes before them, as transformers has it.
    prepends_start_token: ClassVar[bool] = True

    def adopt_generation_defaults(self) -> None:
        """Set `generation_config` from the generation options in the model's configuration."""
        self.generation_config = self.generation_config_class.from_model_config(self.config)

    def read_generation_config(self, checkpoint: Checkpoint) -> None:
        """Set `generation_config` from the checkpoint's generation_config.json, or else its config.json."""
        self.generation_config = self.generation_config_class.from_pretrained(checkpoint, self.config)

    def save_pretrained(self, folder: str | os.PathLike[str], **options: Any) -> None:
        """Write config.json, generation_config.json and the weights, as transformers reads them.

        `options` are those of `PretrainedModel.save_pretrained`.
        """
        super().save_pretrained(folder, **options)
        self.generation_config.save_pretrained(folder)

    def resolve_options(
        self,
        limit: int | None = None,
        /,
        *,
        default_max_length: int | None = None,
        prompt_length: int = 1,
        **options: Any,
    ) -> GenerationOptions:
        """Complete a call's generation options with the checkpoint's and then transformers' defaults.

        `limit` is the model's `max_length`, where the caller has it: finding it is a walk over modules.

        Raises:
            ValueError: an unknown or unsupported option, or a value out of range.
        """
        vocabulary = self.config.get_text_config().vocab_size
        limit = self.max_length if limit is None else limit
        sizes = limit, default_max_length, vocabulary, prompt_length
        return self.generation_config.resolve(options, *sizes)

    @property
    def max_length(self) -> int:
        """Maximum length of a generated sequence in tokens, including the start token."""
        raise NotImplementedError

    def pack_inputs(self, inputs: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pack a padded batch of features or waveforms; returns packed rows and their cu_seqlens."""
        return pack_features(inputs, attention_mask)

    def generation_loop(
        self,
        front_end: "FrontEnd | None" = None,
        *,
        num_pages: int,
        num_rows: int,
        encode_budget: int = 4096,
        ahead: int | None = None,
        graphs: bool | None = None,
        overlap: bool | None = None,
        config: "RunnerConfig | None" = None,
    ) -> "GenerationLoop":
        """Make a continuous-batching loop over this model.

        Args:
            front_end: front end that computes packed features of packed waveforms; None for requests that
                bring features.
            num_pages: number of pages of the key-value cache, 16 rows each.
            num_rows: maximum number of hypotheses decoded at once.
            encode_budget: maximum number of encoder tokens admitted per step.
            ahead: steps launched before the loop waits for the first one's results; see `GenerationLoop`.
            graphs: record decode steps as CUDA graphs; see `ModelRunner`. True on a GPU by default.
            overlap: encode while decoding; see `ModelRunner`. True on a GPU by default.
            config: tunables of the runner.
        """
        from ...scheduler.loop import GenerationLoop
        from ...scheduler.runner import ModelRunner

        on_gpu = self.device.type == "cuda"
        runner = ModelRunner(
            self,  # type: ignore[arg-type]
            front_end,
            num_pages=num_pages,
            num_slots=num_rows,
            graphs=on_gpu if graphs is None else graphs,
            overlap=on_gpu if overlap is None else overlap,
            config=config,
        )
        return GenerationLoop(runner, encode_budget, ahead)

    def generate(
        self,
        inputs: Tensor | None = None,
        *,
        input_features: Tensor | None = None,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        return_dict_in_generate: bool = False,
        output_scores: bool = False,
        **options: Any,
    ) -> Tensor | GenerateOutput:
        """Generate token ids for a padded batch; each row's result equals that of the row alone.

        Args:
            inputs: features [batch, frames, features] or waveforms [batch, samples], whichever the model
                takes; also by the names `input_features` and `input_values`.
            attention_mask: [batch, frames or samples], 1 for real frames or samples; all by default.
            decoder_input_ids: int [batch, tokens], each row's prompt: tokens before the first generated one.
                The start token goes before them where no row begins with it.
            return_dict_in_generate: return a `GenerateOutput`.
            output_scores: include beam search's sequence scores and each step's processed scores over the
                vocabulary [batch * hypotheses, vocabulary], -inf for a recording that has ended.
            **options: transformers' arguments of `generate`, by name, and `seed`.

        Returns:
            int64 [batch * num_return_sequences, longest], padded on the right.

        Raises:
            ValueError: unsupported options, values out of range, recordings too long for the model.
        """
        given = one_input(inputs, input_values, input_features)
        if given is None:
            raise ValueError(
                "give the features to decode, or the waveforms: generate(inputs, attention_mask=...)"
            )
        packed, cu_frames = self.pack_inputs(given.to(self.device), attention_mask)
        recordings = packed.split(cu_frames.diff().tolist())
        prompts, resolved = self._prompts(decoder_input_ids, len(recordings), options)
        keep_scores = return_dict_in_generate and output_scores
        outputs = self._run(
            [
                Request(index, recording, replace(resolved, prompt_tokens=prompt), keep_scores=keep_scores)
                for index, (recording, prompt) in enumerate(zip(recordings, prompts, strict=True))
            ]
        )
        returned = [one for output in outputs for one in output.hypotheses[: resolved.num_return_sequences]]
        sequences = _pad([list(one.token_ids) for one in returned], resolved, self.device)
        if not return_dict_in_generate:
            return sequences
        if not output_scores:
            return GenerateOutput(sequences)
        final = torch.tensor([one.score for one in returned], device=sequences.device)
        scores = self.scores_by_step([output.scores for output in outputs])
        return GenerateOutput(sequences, final if resolved.num_beams > 1 else None, scores)

    def _prompts(
        self, decoder_input_ids: Tensor | None, batch: int, options: dict[str, Any]
    ) -> tuple[list[tuple[int, ...]], GenerationOptions]:
        """Prompt of each row, and the options of all of them.

        Raises:
            ValueError: prompts of another shape or of unknown tokens, or an error of `resolve_options`.
        """
        if decoder_input_ids is None:
            resolved = self.resolve_options(**options)
            return [resolved.prompt] * batch, resolved
        given = decoder_input_ids
        if given.dim() != 2 or given.shape[0] != batch or not given.shape[1]:
            raise ValueError(
                f"decoder_input_ids must be [{batch}, tokens], with a token at least, got {list(given.shape)}"
            )
        prompts = [tuple(row) for row in given.tolist()]
        vocabulary = self.config.get_text_config().vocab_size
        for token in {token for row in prompts for token in row}:
            if not 0 <= token < vocabulary:
                raise ValueError(
                    f"decoder_input_ids names token {token}; the model's are 0 to {vocabulary - 1}"
                )
        resolved = self.resolve_options(prompt_length=len(prompts[0]), **options)
        start = resolved.decoder_start_token_id
        if self.prepends_start_token and all(row[0] != start for row in prompts):
            prompts = [(start, *row) for row in prompts]
            resolved = self.resolve_options(prompt_length=len(prompts[0]), **options)
        return prompts, resolved

    def _run(self, requests: list[Request]) -> list[RequestOutput]:
        from ...scheduler.loop import GenerationLoop
        from ...scheduler.runner import ModelRunner

        loop = GenerationLoop(ModelRunner.sized_for(self, requests))  # type: ignore[arg-type]
        for request in requests:
            loop.submit(request)
        outputs: dict[int, RequestOutput] = {}
        while loop.has_work:
            outputs |= {event.request_id: event for event in loop.step() if isinstance(event, RequestOutput)}
        for output in outputs.values():
            if output.finish_reason is FinishReason.ERROR and output.error is not None:
                raise output.error
        return [outputs[request.request_id] for request in requests]

    @staticmethod
    def scores_by_step(scores: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Concatenate recordings' scores, [hypotheses, vocabulary] per step; -inf for one that has ended."""
        ended = [torch.full_like(own[0], float("-inf")) for own in scores]
        return tuple(
            torch.cat(
                [own[step] if step < len(own) else none for own, none in zip(scores, ended, strict=True)]
            )
            for step in range(max(map(len, scores)))
        )


def _pad(sequences: list[list[int]], options: GenerationOptions, device: torch.device) -> Tensor:
    """Pad token sequences on the right to one tensor, with the padding token that transformers uses."""
    fill = options.pad_token_id
    if options.num_beams > 1 and not fill and options.eos_token_ids:
        fill = options.eos_token_ids[0]  # transformers writes `pad or eos`, and a pad of 0 counts as none
    longest = max(map(len, sequences))
    rows = [sequence + [fill] * (longest - len(sequence)) for sequence in sequences]
    return torch.tensor(rows, dtype=torch.int64, device=device)
