"""How results are drawn, printed and filmed."""
