"""Callsheet: a self-hosted gateway for generative-video jobs."""
