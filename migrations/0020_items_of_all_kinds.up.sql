-- Comments, and lists of what hangs on one item: comments of a note, messages of a chat.
create table items_comment partition of items for values in ('comment');
create index items_by_parent on items (tenant_id, parent_uid, uid) where parent_uid is not null;
