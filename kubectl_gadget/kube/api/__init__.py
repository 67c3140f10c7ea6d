"""The API server: connection and credentials, requests, watches, and the exec stream."""
