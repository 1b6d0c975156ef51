"""HTTP server with OpenAI's audio API, of the extra `server`; nothing here is imported without it."""
