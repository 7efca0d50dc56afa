-- How full each server's storage pool was when that was last told: the threshold in percent that it had passed, 0: none.
ALTER TABLE servers ADD COLUMN pool_level BIGINT NOT NULL DEFAULT 0;
-- Errors that its kernel had counted on the pool's devices.
ALTER TABLE servers ADD COLUMN pool_errors BIGINT NOT NULL DEFAULT 0;
