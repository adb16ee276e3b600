"""`fairway admin`: what keeps a workspace whole for years. The commands of each idea are in a module of their own."""

import typer

from fairway.cli import admin_audit, admin_format, admin_keep, admin_moves, admin_schedules, admin_token, later

app = typer.Typer(help="Audit, doctor, gc, erasure, backups and tokens.", no_args_is_help=True, rich_markup_mode=None)
admin_token.register(app)
admin_audit.register(app)
admin_keep.register(app)
admin_schedules.register(app)
admin_format.register(app)
admin_moves.register(app)

LATER = ("upgrade", "ci", "retire")
for _verb in LATER:
    app.command(_verb, help="(not in this version)", context_settings={"ignore_unknown_options": True})(
        later.refuse(f"admin {_verb}")
    )
