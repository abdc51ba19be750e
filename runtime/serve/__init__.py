"""The live page, metrics and health over HTTP, with the standard library's server."""
