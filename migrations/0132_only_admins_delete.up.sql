-- WITH CHECK does not bind DELETE: what only an admin may write, any member could delete, as far as Postgres was concerned.
-- A restrictive policy would also bind the owner, who is a member of alfred_app and erases whole tenants.
create policy tool_policies_deleted_by_admins on tool_policies as restrictive for delete to alfred_app
  using (current_user <> 'alfred_app' or (tenant_id = current_tenant() and current_is_admin()));
create policy memberships_deleted_by_admins on memberships as restrictive for delete to alfred_app
  using (current_user <> 'alfred_app' or (tenant_id = current_tenant() and current_is_admin()));
