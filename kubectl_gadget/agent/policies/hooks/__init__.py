"""One hook of policies on a node, and all of them: loading, attaching, and the files and types that hooks refer to."""
