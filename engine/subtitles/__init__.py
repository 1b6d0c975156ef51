"""Subtitles of transcriptions: text cut into cues of a few short lines, and the formats that hold them."""
