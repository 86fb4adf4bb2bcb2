"""Configuration: the YAML file as typed, frozen values, and the secrets it refers to."""
