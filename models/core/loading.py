"""Loading of checkpoint tensors into a model: names and shapes are matched, mismatches reported."""

import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from ..checkpoints.weights import write_weights

if TYPE_CHECKING:
    from .model import PretrainedModel

# Most elements of a computed position table, which no checkpoint bounds; real ones have some millions.
MAX_TABLE_ELEMENTS = 2**26
MAX_NAMES_SHOWN = 8  # in a message
_DRAWS = {
    *(nn.init.normal_, nn.init.uniform_, nn.init.kaiming_normal_, nn.init.kaiming_uniform_),
    *(Tensor.normal_, Tensor.uniform_),
}


@dataclass(frozen=True)
class LoadingReport:
    """Match of a checkpoint with a model: tensors to load, and names on either side that do not fit."""

    tensors: dict[str, Tensor]  # to be loaded, by the model's names
    missing: set[str] = field(default_factory=set)  # names of the model that the checkpoint must have
    unexpected: set[str] = field(default_factory=set)  # names of the checkpoint that the model does not know
    # name, the checkpoint's shape, the model's
    mismatched: set[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=set)
    untied: set[str] = field(default_factory=set)  # tied by the configuration, different in the checkpoint
    fresh: set[str] = field(default_factory=set)  # absent as `fresh_keys` allows, randomly initialized
    # names that keep random initial values: missing, fresh, of another shape, or read in training alone
    fresh_values: set[str] = field(default_factory=set)

    def to_dict(self) -> dict[str, Any]:
        """Report as the dictionary that transformers returns for `output_loading_info`."""
        return {
            "missing_keys": self.missing | self.fresh,
            "unexpected_keys": set(self.unexpected),
            "mismatched_keys": set(self.mismatched),
            "error_msgs": [],
        }

    def check(self, where: str, *, missing_allowed: bool = False, mismatched_allowed: bool = False) -> None:
        """Raise an error for missing or misshapen tensors, and warn of unexpected or untied ones.

        Raises:
            ValueError: tensors that are missing or of another shape, each named, unless they are allowed.
        """
        problems = [] if missing_allowed else [f"missing: {name}" for name in sorted(self.missing)]
        wrong = [
            f"wrong shape: {name} is {list(given)}, the configuration wants {list(wanted)}"
            for name, given, wanted in sorted(self.mismatched)
        ]
        left_over = [f"unexpected: {name}" for name in sorted(self.unexpected)]
        if not mismatched_allowed:
            problems += wrong
            wrong = []
        if problems:
            raise ValueError(
                f"the weights in {where} do not fit its configuration: {_listed(problems + left_over)}"
            )
        if wrong:
            _warn(f"the weights in {where} have tensors of another shape, left fresh: {_listed(wrong)}")
        if left_over:
            _warn(
                f"the weights in {where} hold tensors that the model has no place for: {_listed(left_over)}"
            )
        if self.fresh:
            _warn(
                f"the weights in {where} are of a model without cross-attention, adapter or head; these are "
                f"fresh, train the model before you use its results: {_listed(sorted(self.fresh))}"
            )
        if self.untied:
            _warn(
                f"the weights in {where} give {_listed(sorted(self.untied))} values of its own, "
                "so it is not tied; set tie_word_embeddings=False in its configuration"
            )


def fit(tensors: Mapping[str, Tensor], model: "PretrainedModel") -> LoadingReport:
    """Match a checkpoint's tensors with a model's names and shapes.

    A checkpoint of a model with a head fits the one without, and the other way round; of tied tensors one is
    enough; tables that old checkpoints store and that are computed here are ignored.
    """
    wanted = model.state_dict()
    given = {model.own_key(name): tensor for name, tensor in tensors.items()}
    given = _renamed(given, wanted, model.base_prefix)
    for name, other in model.stand_in_keys.items():
        if name not in given and other in given:
            given[name] = given.pop(other)
    given = {name: tensor for name, tensor in given.items() if name in wanted or not model.ignores(name)}
    untied: set[str] = set()
    tied = {name: home for name, home in model.ties().items() if _is_tied(model, name, home)}
    for name, home in tied.items():
        if name in given and home in given:
            # .bin files hold both, equal; where they differ, the checkpoint overrules its configuration.
            if given[name].shape == given[home].shape and torch.equal(given[name], given[home]):
                del given[name]
            else:
                untied.add(name)
        elif name in given:
            given[home] = given.pop(name)
    shared = tied.keys() - untied
    mismatched = {
        (name, tuple(given[name].shape), tuple(wanted[name].shape))
        for name in given.keys() & wanted.keys()
        if given[name].shape != wanted[name].shape
    }
    wrong = {name for name, _, _ in mismatched}
    missing = {name for name in wanted.keys() - given.keys() if name not in shared} - _only_trained(model)
    groups: dict[str, set[str]] = {}
    for name in wanted.keys() - shared:
        groups.setdefault(model.may_be_fresh(name), set()).add(name)
    groups.pop("", None)
    # A checkpoint that lacks only some of a group is damaged.
    fresh = {name for group in groups.values() if group <= missing for name in group}
    loaded = {name: given[name] for name in given if name in wanted and name not in wrong}
    return LoadingReport(
        tensors=loaded,
        missing=missing - fresh,
        unexpected=set(given.keys() - wanted.keys()),
        mismatched=mismatched,
        untied=untied,
        fresh=fresh,
        fresh_values=wanted.keys() - loaded.keys() - shared,
    )


def load(report: LoadingReport, model: "PretrainedModel") -> None:
    """Copy a report's tensors into the model, and untie parameters that have values of their own."""
    for name in report.untied:
        parent, _, leaf = name.rpartition(".")
        own = model.get_parameter(name).detach().clone()
        setattr(model.get_submodule(parent), leaf, nn.Parameter(own))
    model.load_state_dict(report.tensors, strict=False)


def save_state_dict(
    model: "PretrainedModel", folder: Path, state_dict: Mapping[str, Tensor] | None = None, **options: Any
) -> None:
    """Write a model's tensors, or those of `state_dict`, to weight files in a folder; tied ones once.

    The folder must exist. `options` are those of `weights.write_weights`.
    """
    state = dict(model.state_dict() if state_dict is None else state_dict)
    for name, home in model.ties().items():
        if name in state and home in state and _same_memory(state[name], state[home]):
            del state[name]
    write_weights(state, folder, **options)


@contextmanager
def bounded(
    tensors: Mapping[str, Tensor], config: Any = None, where: str = "", *, drawn: bool = True
) -> Iterator[None]:
    """Context that bounds the memory of a model made in it, against absurd sizes in its configuration.

    The bound is over four times the checkpoint's size, as it may lack some of the model; `fit` is exact.
    (A model on the meta device would show its exact size first, but costs over a second of imports.)

    Args:
        tensors: tensors of the checkpoint.
        config: configuration whose sizes an error names.
        where: source of the configuration, for errors.
        drawn: False to skip random initialization, which takes longer than loading.

    Raises:
        ValueError: a configuration that describes no model, or one far from the checkpoint's size.
    """
    most_parameters = 4 * len(tensors) + 1000
    most_elements = 4 * sum(tensor.numel() for tensor in tensors.values()) + MAX_TABLE_ELEMENTS
    parameters = elements = 0
    place = f"{where}: " if where else ""

    def counted(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal parameters, elements
        if parameter is not None:
            parameters += 1
            elements += parameter.numel()  # their memory is reserved, but not written yet
            if parameters > most_parameters or elements > most_elements:
                raise ValueError(
                    f"the configuration describes a model of over {parameters - 1} parameters with "
                    f"{elements} numbers, its weights are {len(tensors)} tensors; correct its sizes"
                    f"{_suspects(config, layers=parameters > most_parameters)}"
                )

    before, _counting.function = _counting.function, counted
    try:
        with _SmallTables(drawn, config):
            yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        sizes = f"; correct its sizes{_suspects(config)}" if isinstance(error, RuntimeError) else ""
        raise ValueError(f"{place}the configuration describes no model: {reason}{sizes}") from error
    except ValueError as error:
        raise ValueError(f"{place}{error}") from error
    finally:
        _counting.function = before


class _Counting(threading.local):
    """Function that is told of each parameter of a model made in this thread; None outside `bounded`."""

    function: Callable[[nn.Module, str, nn.Parameter | None], None] | None = None


_counting = _Counting()


def _count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
    if _counting.function is not None:
        _counting.function(module, name, parameter)


# Once, since torch goes through its table of these hooks while another thread makes a model.
register_module_parameter_registration_hook(_count)


class _SmallTables(TorchFunctionMode):
    """Torch mode that refuses results over `MAX_TABLE_ELEMENTS`, and can skip random initialization."""

    def __init__(self, drawn: bool, config: Any) -> None:
        super().__init__()
        self._drawn = drawn
        self._config = config

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one torch function; ValueError where its result would exceed `MAX_TABLE_ELEMENTS`."""
        if func in _DRAWS and not self._drawn:
            return args[0] if args else (kwargs or {})["tensor"]
        shapes = [value.shape for value in args if isinstance(value, Tensor) and value.dim()]
        largest = max([value for value in args if isinstance(value, int)], default=0)
        if len(shapes) > 1:
            broadcast = zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1)
            largest = max(largest, math.prod(map(max, broadcast)))
        if largest > MAX_TABLE_ELEMENTS:
            raise ValueError(
                f"the configuration asks for a table of {largest} numbers, "
                f"and {MAX_TABLE_ELEMENTS} are the most; correct its sizes{_suspects(self._config)}"
            )
        return func(*args, **(kwargs or {}))


def _suspects(config: Any, *, layers: bool = False) -> str:
    """End of a message with the largest sizes of a configuration and its parts, or its numbers of layers."""
    if not hasattr(config, "to_dict"):
        return ""
    fields = config.to_dict()
    for part in ("encoder", "decoder"):
        if isinstance(inner := fields.get(part), dict):
            fields |= {f"{part}.{name}": value for name, value in inner.items()}
    sizes = [
        (value, name)
        for name, value in fields.items()
        if type(value) is int and not name.endswith("_id") and ("layer" in name or not layers)
    ]
    largest = sorted(sizes, reverse=True)[:3]
    return f": {', '.join(f'{name} {value}' for value, name in largest)}" if largest else ""


def _renamed(
    tensors: dict[str, Tensor], wanted: Mapping[str, Any], prefixes: str | tuple[str, ...]
) -> dict[str, Tensor]:
    """Checkpoint tensors with a base prefix added to their names, or removed, to match the model's."""
    for prefix in (prefixes,) if isinstance(prefixes, str) else prefixes:
        here = any(name.startswith(prefix) for name in wanted)
        there = any(name.startswith(prefix) for name in tensors)
        if prefix and there and not here:
            return {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }
        if prefix and here and not there:
            return {name if name in wanted else prefix + name: tensor for name, tensor in tensors.items()}
    return tensors


def _only_trained(model: nn.Module) -> set[str]:
    """Full names of the tensors that only training reads, by the `training_keys` of all modules."""
    return {
        f"{name}.{leaf}" if name else leaf
        for name, module in model.named_modules()
        for leaf in getattr(module, "training_keys", ())
    }


def _is_tied(model: nn.Module, name: str, home: str) -> bool:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return name in parameters and parameters[name] is parameters.get(home)


def _same_memory(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape


def _listed(problems: list[str]) -> str:
    more = f"; and {len(problems) - MAX_NAMES_SHOWN} more" if len(problems) > MAX_NAMES_SHOWN else ""
    return "; ".join(problems[:MAX_NAMES_SHOWN]) + more


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
