"""Differentiable architecture search with informative attention for person re-identification."""
