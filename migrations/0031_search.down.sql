drop trigger items_index_changed on items;
drop trigger items_index_new on items;
drop function search_items(text, text[], text[], boolean, uuid, bigint);
drop function search_catch_up(uuid, bigint);
drop function search_snippet(text, text);
drop function items_index();
drop function item_words(jsonb);
drop function item_text(jsonb);
drop policy items_of_search on items;
drop policy changes_of_owner on changes;
create or replace function items_note_change() returns trigger language plpgsql as $$
begin
  insert into public.changes (tenant_id, user_id, kind, uid, version, change)
  values (new.tenant_id, new.user_id, new.kind, new.uid, new.version,
          case when tg_op = 'INSERT' then 'created'
               when new.deleted_at is not null and old.deleted_at is null then 'deleted'
               else 'updated' end);
  return null;
end
$$;
drop index changes_to_index;
alter table changes drop column to_index;
drop table search_documents;
drop text search configuration workspace_text;
drop extension btree_gin;
