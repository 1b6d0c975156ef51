"""What users touch: the engine, transcription jobs, audio files and the command line."""
