"""`python main.py VERB --flags`; see jax_atvg/cli/app.py."""

from jax_atvg.cli.app import start

if __name__ == "__main__":
    start()
