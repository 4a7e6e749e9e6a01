"""Training a discrete network, searched or fixed, and comparing the results."""
