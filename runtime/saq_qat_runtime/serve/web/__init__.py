"""What needs the extra `serve`: FastAPI, uvicorn, prometheus-client, python-multipart."""
