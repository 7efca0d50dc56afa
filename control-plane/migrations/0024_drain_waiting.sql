-- JSON object: containers of a server that is being emptied that cannot be moved just now, and why. NULL: none.
ALTER TABLE servers ADD COLUMN drain_waiting TEXT;
