"""`new`, `check`, `train` and `diff`."""
import typer
def register(app: typer.Typer) -> None:
    pass
