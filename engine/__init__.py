"""Speech inference engine: requests, threads, audio files and the command line."""
