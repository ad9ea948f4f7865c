drop function agent_sync(text, uuid, bigint, text);
