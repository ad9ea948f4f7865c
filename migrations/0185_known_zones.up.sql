-- The time zone that is named, or UTC where this server does not know the name. Lists of zones differ between machines and releases:
-- a name that was good when it was stored must not stop its person's turns after a move or an upgrade.
create function known_zone(p_zone text) returns text
  language plpgsql stable strict set search_path = pg_catalog, pg_temp
as $$
begin
  perform current_timestamp at time zone p_zone;
  return p_zone;
exception when invalid_parameter_value then
  return 'UTC';
end
$$;
