"""`python -m ps_vae` is `ps-vae`."""

import sys

from ps_vae.cli.main import run

if __name__ == "__main__":
    sys.exit(run())
