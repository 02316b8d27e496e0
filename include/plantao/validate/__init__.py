"""Takes batches and the contract, gives the rows that may be scored and the rejects."""
