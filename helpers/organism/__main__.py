"""`python -m helpers.organism` trains the model and its SAE anew and puts them in place if they are good enough."""

from helpers.organism import WEIGHTS
from helpers.organism.rebuild import rebuild

rebuild(WEIGHTS, log=lambda line: print(line, flush=True))
