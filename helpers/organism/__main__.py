"""`python -m helpers.organism` trains the models and SAEs anew and puts them in place if they are good enough."""

from helpers.organism import WEIGHTS
from helpers.organism.rebuild import rebuild

if __name__ == "__main__":  # the processes that it starts import this module too
    rebuild(WEIGHTS)
