"""What contestants solve: closed forms, learned metrics, and as many pairs as a batch takes."""
