"""A bank of adapters over HTTP: the one room that knows FastAPI and uvicorn."""
