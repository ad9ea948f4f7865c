drop trigger items_changed on items;
drop trigger items_created on items;
drop function items_note_change();
drop function change_epoch(uuid);
drop table change_feeds;
drop table changes;
