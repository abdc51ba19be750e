"""What a model costs on a target: milliseconds, bytes and energy, in closed form, with provenance and an error band."""
