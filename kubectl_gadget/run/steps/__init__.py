"""The steps that rows pass in the client, one module each; session.pipeline calls them in order."""
