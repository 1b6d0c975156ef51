"""Error for recordings, and the remedies that its messages give."""

CONVERT = "convert it: ffmpeg -i IN out.wav"
COPY_AGAIN = "copy it again, or keep what is there: ffmpeg -i IN out.wav"


class AudioError(ValueError):
    """Error for an unusable recording; the message gives its name, the problem and the remedy."""
