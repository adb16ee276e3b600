"""The hot path: gateway, spool, model processes. Imports no SQLAlchemy, FastAPI, pandas or scikit-learn."""
