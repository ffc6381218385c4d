"""How fast Tidewire is on this machine, beside its peers and its floors: `python -m bench`, docs/benchmarks.md."""
