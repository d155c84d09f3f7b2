"""`python -m tests.registry.refresh_alone`: what `cots registry refresh` does after its stages."""

from cots.config.params import Params
from cots.errors import exit_on_error
from cots.refresh import refresh

if __name__ == "__main__":
    with exit_on_error():
        refresh(Params.load())
