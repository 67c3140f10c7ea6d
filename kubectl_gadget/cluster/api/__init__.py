"""The API server: how it is reached and as whom, requests, watches, and the exec stream."""
