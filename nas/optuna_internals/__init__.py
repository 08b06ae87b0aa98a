"""What this program needs of the insides of Optuna and its dashboard: no other folder uses a private name of theirs.

Two modules do. Where a release has done away with such a name, a public way is taken, which is slower at worst:

- `tables` writes Optuna's tables. If they are not those that it knows, `batched_storage` takes Optuna's own storage.
- `dashboard_attributes` writes notes and artifacts at once. If it cannot tell how, it calls what is there for that.

No private name of Ray is used at all. The other modules do by public names what is elsewhere done by private ones.
"""
