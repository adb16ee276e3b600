"""The move of an endpoint from champion to challenger."""
