drop function identity_by_key_hash(bytea);
drop table tool_policies, api_keys, memberships, users, tenants;
