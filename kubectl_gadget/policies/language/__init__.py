"""The language of policies: fields of the YAML, types of arguments, operators, patterns, Linux's names."""
