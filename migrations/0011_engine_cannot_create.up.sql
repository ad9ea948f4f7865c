-- alfred_engine needed CREATE on the schema only to be given its functions. A later migration that gives it another
-- one grants and revokes this around it.
revoke create on schema public from alfred_engine;
