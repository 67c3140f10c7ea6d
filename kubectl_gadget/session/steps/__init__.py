"""The steps that rows take in the client, one module each; session.pipeline calls them in order."""
