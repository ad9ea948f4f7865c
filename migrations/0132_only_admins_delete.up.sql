-- WITH CHECK does not bind DELETE: what only an admin may write, any member could delete, as far as Postgres was concerned.
create policy tool_policies_deleted_by_admins on tool_policies as restrictive for delete to alfred_app
  using (tenant_id = current_tenant() and current_is_admin());
create policy memberships_deleted_by_admins on memberships as restrictive for delete to alfred_app
  using (tenant_id = current_tenant() and current_is_admin());
