"""The steps of new, train and deploy, in order, cached and reported."""
