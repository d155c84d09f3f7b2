"""COTS: train, deploy and operate two-stream vision-language retrieval (arXiv:2204.07441)."""
