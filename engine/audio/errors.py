"""Error for recordings, and the remedies that its messages give."""

CONVERT = "convert it: ffmpeg -i IN out.wav"
COPY_AGAIN = "copy it again, or keep what is there: ffmpeg -i IN out.wav"


class AudioError(ValueError):
    """Error for an unusable recording; the message gives its name, the problem and the remedy."""


class TooLongError(AudioError):
    """Error for a recording that is longer than is taken at once."""


class TooShortError(AudioError):
    """Error for a recording of no samples, or too few for one frame or the model's convolutions.

    Args:
        problem: name of the recording and its length; the message adds the remedy.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}; leave it out, or take an empty result: short='empty', --short empty")
        self.problem = problem
