-- Searches index first, whether there is anything to index or not.
create or replace function search_items(p_query text, p_kinds text[], p_states text[], p_archived boolean, p_before uuid, p_most bigint)
  returns table (kind text, uid uuid, rank real)
  language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp
as $$
begin
  perform search_catch_up(current_tenant(), 200);
  return query execute
    'select d.kind, d.uid, ts_rank(''{0.1, 0.3, 0.6, 1}'', d.words, $3, 1)
     from search_documents d
     where d.tenant_id = $1 and d.words @@ $3 and d.uid < $7'
    || case when current_is_admin() then '' else ' and d.user_id = $2' end
    || case when p_kinds is null then '' else ' and d.kind = any ($4)' end
    || case when p_states is null then '' else ' and d.status = any ($5)' end
    || case when p_archived then '' else ' and not d.archived' end
    || ' order by d.uid desc limit $6'
    using current_tenant(), current_app_user(), websearch_to_tsquery('public.workspace_text', p_query), p_kinds, p_states,
          p_most, coalesce(p_before, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
end
$$;
