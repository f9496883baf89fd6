"""The messages of freshet.ps.v1, admin.v1 and predict.v1, as generate.sh wrote them."""
