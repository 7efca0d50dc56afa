-- What is looked up for every link or every second, with thousands of servers.

-- A hello spends its server's join tokens.
CREATE INDEX join_tokens_server ON join_tokens (server_id);

-- Servers whose agents are not let in: few among many.
CREATE INDEX servers_shut_out ON servers (id) WHERE status IN ('disabled', 'revoked');

-- Specifications that a node did not acknowledge: few among many. The condition is that of the queries, word for word.
CREATE INDEX containers_unacked ON containers (server_id)
    WHERE (acked_epoch < epoch OR (acked_epoch = epoch AND acked_generation < generation));
